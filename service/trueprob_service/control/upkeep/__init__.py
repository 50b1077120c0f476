"""What goes on beside requests: forgetting, archiving, telling, another key."""
