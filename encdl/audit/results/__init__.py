"""Tables, plots and figures of the documentation, rendered from the records under experiments/results."""

from encdl.audit.results.pages import Change, find_pages, rendered, update

__all__ = ["Change", "find_pages", "rendered", "update"]
