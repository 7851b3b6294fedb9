"""tito: the course tool of TinyTorch, for students, instructors and authors."""
