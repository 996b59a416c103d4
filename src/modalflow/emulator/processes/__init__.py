"""The processes that containers are: a template, its forks, their rooms."""
