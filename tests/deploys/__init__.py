"""Deploys: workers replaced one after the other, and two releases side by side through a migration."""
