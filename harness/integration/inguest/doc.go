// Package inguest has tests that need root and a kernel of their own. They run in a machine:
//
//	guesthouse test -tags inguest ./harness/integration/inguest
package inguest
