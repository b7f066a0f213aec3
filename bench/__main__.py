"""Every figure that needs no data of one's own: ``python -m bench``; see the other modules for the rest."""

from bench import architectures, build, startup

if __name__ == "__main__":
    startup.main()
    architectures.main([])
    build.main()
