"""Copies of single images."""
