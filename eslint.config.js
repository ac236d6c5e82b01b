// What `make check` asks of JavaScript beyond its types, which are tsc's.

import js from "@eslint/js";
import { defineConfig } from "eslint/config";
import globals from "globals";
import { configs } from "typescript-eslint";

export default defineConfig(
	{
		files: ["web/*.js", "tests/web/*.mjs"],
		extends: [js.configs.recommended, configs.recommendedTypeChecked],
		languageOptions: { parserOptions: { projectService: true } },
		linterOptions: { reportUnusedDisableDirectives: "error" },
		rules: {
			eqeqeq: "error",
			"no-var": "error",
			"object-shorthand": "error",
			"prefer-const": "error",
			"@typescript-eslint/no-unused-vars": ["error", { varsIgnorePattern: "^_$" }],
			// A function that promises a plain value is async, whether it waits or not.
			"@typescript-eslint/require-await": "off",
			"@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
			// These do not see the casts that JSDoc makes.
			"@typescript-eslint/no-unsafe-argument": "off",
			"@typescript-eslint/no-unsafe-assignment": "off",
			"@typescript-eslint/no-unsafe-member-access": "off",
			"@typescript-eslint/no-unsafe-return": "off",
			"@typescript-eslint/prefer-promise-reject-errors": "off", // and what IndexedDB gives is an error or null
		},
	},
	{ files: ["web/*.js"], languageOptions: { globals: globals.browser } },
	{
		files: ["tests/web/*.mjs"],
		languageOptions: { globals: globals.node },
		rules: {
			// The runner waits for its tests by itself.
			"@typescript-eslint/no-floating-promises": [
				"error",
				{ allowForKnownSafeCalls: [{ from: "package", name: "test", package: "node:test" }] },
			],
		},
	},
	{
		// These two have no DOM in them: they run in Node as well.
		files: ["web/tandem.js", "web/text.js"],
		languageOptions: { globals: { ...off(globals.browser), ...globals["shared-node-browser"] } },
	},
);

/** The same names, as ones that are not there. */
function off(names) {
	return Object.fromEntries(Object.keys(names).map((name) => [name, "off"]));
}
