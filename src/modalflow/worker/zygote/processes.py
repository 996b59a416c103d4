"""The helpers around processes that the worker uses; see ``support.linux``."""

from modalflow.support.linux import adopt_orphans as adopt_orphans
from modalflow.support.linux import describe_exit as describe_exit
from modalflow.support.linux import die_with as die_with
from modalflow.support.linux import ends_within as ends_within
from modalflow.support.linux import kill_children_but as kill_children_but
from modalflow.support.linux import kill_family as kill_family
from modalflow.support.linux import most_for_variables as most_for_variables
from modalflow.support.linux import send as send
from modalflow.support.linux import send_to_group as send_to_group
