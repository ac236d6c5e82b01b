-- gin-chat-demo asks for a nick name at registration, but has no column for it. This column can hold all characters,
-- whatever the table's character set is.
ALTER TABLE `user` ADD COLUMN `nick_name` varchar(255) CHARACTER SET utf8mb4 NULL
