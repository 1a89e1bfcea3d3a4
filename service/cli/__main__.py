"""`python -m service.cli`: how a launcher starts its processes."""

from service.cli import main

if __name__ == "__main__":
    main(prog_name="jarai-receiver")
