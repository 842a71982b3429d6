"""The edges: one third-party library per file, behind the contracts of kstate.interfaces."""
