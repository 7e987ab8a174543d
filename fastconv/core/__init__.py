"""What every algorithm and every public function stands on: problems, plans, the choice, the JIT policy."""
