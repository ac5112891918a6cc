"""Tables of configuration and people, one file per noun group.

The job tables (`jobs`, `job_history`, `ai_usage_analytics`) are not mapped: every statement that touches them
is SQL in `workers/jobs.py`, and their definition is the migrations'.
"""

from store.tables.base import Base
from store.tables.features import AssignmentTarget, Feature, FeatureAIAssignment, PromptTemplate
from store.tables.lanes import Lane
from store.tables.people import Admin, AppToken
from store.tables.providers import AIModel, AIProvider, ModelPrice

__all__ = [
    "AIModel",
    "AIProvider",
    "Admin",
    "AppToken",
    "AssignmentTarget",
    "Base",
    "Feature",
    "FeatureAIAssignment",
    "Lane",
    "ModelPrice",
    "PromptTemplate",
]
