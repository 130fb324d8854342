"""placeholder"""


def open_tracker(*a):
    raise NotImplementedError
