"""Notifications of a mirror: failures, recoveries, new images and low quotas."""
