"""Tables of configuration and people, one file per noun group.

The job tables (`jobs`, `job_history`, `ai_usage_analytics`) are not mapped: every statement that touches them
is SQL in `workers/jobs.py`, and their definition is the migrations'.
"""

from store.tables.audit import AuditEntry
from store.tables.base import Base
from store.tables.budgets import Budget, BudgetUsage
from store.tables.features import (
    AssignmentTarget,
    AssignmentVersion,
    Feature,
    FeatureAIAssignment,
    PromptTemplate,
)
from store.tables.integrations import IntegrationHealth, SystemIntegration
from store.tables.lanes import Lane
from store.tables.people import (
    Admin,
    AdminNetwork,
    AdminRecoveryCode,
    AdminRefreshToken,
    AdminSecondFactor,
    AdminSession,
    AppToken,
    AppTokenUse,
    LoginThrottle,
)
from store.tables.personal_keys import AdminProviderSetting
from store.tables.providers import AIModel, AIProvider, ModelPrice
from store.tables.retention import Retention
from store.tables.schedules import Fire, JobGroup, Schedule, ScheduleState

__all__ = [
    "AIModel",
    "AIProvider",
    "Admin",
    "AdminNetwork",
    "AdminProviderSetting",
    "AdminRecoveryCode",
    "AdminRefreshToken",
    "AdminSecondFactor",
    "AdminSession",
    "AppToken",
    "AppTokenUse",
    "AssignmentTarget",
    "AssignmentVersion",
    "AuditEntry",
    "Base",
    "Budget",
    "BudgetUsage",
    "Feature",
    "FeatureAIAssignment",
    "Fire",
    "IntegrationHealth",
    "JobGroup",
    "Lane",
    "LoginThrottle",
    "ModelPrice",
    "PromptTemplate",
    "Retention",
    "Schedule",
    "ScheduleState",
    "SystemIntegration",
]
