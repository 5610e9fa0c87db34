"""Tenancy: every record belongs to a tenant, and every call acts for one."""
