"""Files written whole, locks, sample sheets."""
