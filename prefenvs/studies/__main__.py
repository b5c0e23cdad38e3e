"""`python -m prefenvs.studies` makes the pages anew from the recorded results."""

from prefenvs.studies._pages import render

if __name__ == "__main__":
    for written in render():
        print(written)
