"""`dbjobq doctor`: says in plain words what is wrong with a queue's database, and what to do about it.

A check is a statement of the storage (`sql/doctor/`) and a function that judges its rows; `examine` makes all
checks. Nothing is changed. The statements read a bounded number of rows.
"""

from dbjobq.doctor.examine import examine
from dbjobq.doctor.findings import SEVERITIES, Finding, Severity, ranked, worst

__all__ = ["SEVERITIES", "Finding", "Severity", "examine", "ranked", "worst"]
