"""Pictures from anybody: decoded here or in a process of their own that can be killed."""
