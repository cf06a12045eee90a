"""What users can write: one module a verb or group of verbs, without what the verbs do."""
