"""`encdl report`: finished runs side by side on one page; `gather` reads them, `plots` draws, `page` writes."""
