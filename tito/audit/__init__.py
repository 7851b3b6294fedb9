"""The audit: does every graded cell fail without its solution, pass with it, and notice small mistakes in it?

``tito.audit.course`` leads it. It makes mutants (``mutants``) and lazy students (``lazy``) from a module's source, and
has them judged by the module's graded cells in a process of its own (``worker``). ``lint`` looks, while a graded cell
runs with the solution (``watch``), for expected values that it hands to student code, and objects that it believes.
"""
