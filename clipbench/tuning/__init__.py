"""What can be done to a frozen network, once each."""
