"""Pages of the studio, each a `tapeout.report.page.Page` from what the library read."""
