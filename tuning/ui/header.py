"""The head of the page: its title, Help, and the words by which the page calls settings and their values."""

from __future__ import annotations

from tuning.ui.form import page_labels, page_terms
from tuning.ui.sections import Region, Section

CLAIM = "Change one setting, see what it costs, train, compare."
# Help opens beside the page, in a tab that the next press uses again: what is typed in the form stays in sight
HELP_LINK = "<a class='tf-help' href='fork/help' target='tuning-fork-help'>Help</a>"

HEADER = Section(
    kind="header",
    name="Page header",
    region=Region.TOP,
    template=f"<header class='tf-header'><h1>Tuning Fork</h1><p>{CLAIM}</p>{HELP_LINK}</header>",
    config=lambda: {"labels": page_labels(), "terms": page_terms()},
)
