"""Studies: claims of papers, measured here. One file a study, found by its name; underscore modules are machinery."""
