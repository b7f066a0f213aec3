"""Being here, this file lets every test import the helpers beside it (``small_models``)."""
