package slapd

// Find exposes the look-up of a binary to the tests.
func Find(name string) error {
	_, err := find(name)
	return err
}
