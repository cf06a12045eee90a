"""How fast concil is beside the programs people use today, measured in the same run."""
