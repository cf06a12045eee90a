"""What a mirror is to copy: plans and lists, tag filters, and the images they come to."""
