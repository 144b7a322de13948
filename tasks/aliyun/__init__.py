"""Alibaba Cloud's API, through its SDKs."""
