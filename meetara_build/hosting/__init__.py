"""An agent in a process of its own: asked, watched over and ended, whatever it does."""
