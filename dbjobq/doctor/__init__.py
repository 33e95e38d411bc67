"""What is wrong with a queue's database, in plain words, and what to do about it.

A check is a statement of the storage (`sql/doctor_*.sql`) and a function that judges its rows; `examine` makes all.
Nothing is changed, and what is read is bounded, or is what only people ask for.
"""

from dbjobq.doctor.examine import examine
from dbjobq.doctor.findings import SEVERITIES, Finding, Severity, ranked, worst

__all__ = ["SEVERITIES", "Finding", "Severity", "examine", "ranked", "worst"]
