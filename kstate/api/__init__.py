"""What users import: operators, streams, state, jobs; re-exported by kstate."""
