"""The routes of the API: permissions, parameters, and the form of answers."""
