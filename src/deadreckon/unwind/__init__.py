"""From registers and stack memory to return addresses; one file per architecture."""
