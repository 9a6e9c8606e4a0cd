"""Paired load test: what adaptive thinking costs against always-think."""
