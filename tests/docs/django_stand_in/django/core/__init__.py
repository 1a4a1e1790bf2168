"""See django_stand_in/django."""
