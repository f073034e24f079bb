"""What things are: definitions, runs, events, outcomes and the transitions between states. No I/O and no clock."""
