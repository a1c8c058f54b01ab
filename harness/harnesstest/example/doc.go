// Package example holds the two programs of the README, a guest and its test, laid out as in a
// user's module.
package example
