// Package example holds the two programs of the README, a guest and its test, as they would be in a
// module of their own.
package example
