// Package example holds the README's two programs, a guest and its test, as
// they would stand in a module of their own.
package example
