# Prints the coverage of each package of a profile of go test, in percent. A block that several test binaries
# count has several lines.
NR > 1 {
	statements[$1] = $2
	if ($3 > 0) ran[$1] = 1
}
END {
	for (block in statements) {
		package = block
		sub(/\/[^\/]*$/, "", package)
		all[package] += statements[block]
		if (block in ran) covered[package] += statements[block]
	}
	for (package in all)
		printf "%5.1f%%  %5d statements  %s\n", 100 * covered[package] / all[package], all[package], package
}
