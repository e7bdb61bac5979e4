"""What is noticed on the way: heads without gradient (`gradients`), what each loss does to each part (`gradient_history`).

From the lines of a run, also of one that goes on elsewhere: `alarms`.
"""
