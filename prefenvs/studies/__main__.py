"""`python -m prefenvs.studies` makes summaries, figures and pages anew from the recorded tables."""

from prefenvs.studies._pages import refresh

if __name__ == "__main__":
    for written in refresh():
        print(written)
