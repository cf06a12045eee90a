"""The live page of a mirror: a small web server that shows what the mirror does."""
