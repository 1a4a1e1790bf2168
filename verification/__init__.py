"""What proves the guarantees: histories of clients under races and faults, and a checker that judges what they were told."""
