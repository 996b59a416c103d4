"""What work occupied, and what that costs. Pure: everything is given, no clock, file or network is read."""
