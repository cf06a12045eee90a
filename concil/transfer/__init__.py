"""The transfer engine; knows stores by their protocols only."""
