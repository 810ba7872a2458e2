"""The rules of credits, pure: state, command and time go in; events or a refusal come out."""
