"""Tests of `concil.http.exchange`."""
